"""Home text of models trained on it: English novels of 1839 to 1929.

Set `general_novels` (computationalstylistics/100_english_novels, public domain by age). Layout: `corpus/<author>_<title>_<year>.txt`.
"""

from __future__ import annotations

from functools import partial

from cegm.tasks.axis import Source, public
from cegm.tasks.public.files import Document, files_in, text_of


def documents(source: Source) -> list[Document]:
    """All novels.

    Raises:
        NotMeasured: The set is not there.
    """
    paths = files_in(public(source, "general_novels", "corpus"), "*.txt")
    return [Document(path.stem, partial(text_of, path)) for path in paths]
