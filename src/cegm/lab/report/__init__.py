"""One offline page, one picture and one terminal table, from the folder of a comparison, an ablation or a run alone."""

try:
    from cegm.lab.report.page import write
    from cegm.lab.report.picture import export_picture
    from cegm.lab.report.terminal import table
except ImportError as error:
    raise ImportError(f"the report needs {error.name}: pip install 'cegm[report]'") from error

__all__ = ["export_picture", "table", "write"]
