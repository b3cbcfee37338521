"""`cegm watch`: a run, a comparison or a pilot while it goes, in the terminal or on a page of 127.0.0.1. It reads, and writes nothing."""
