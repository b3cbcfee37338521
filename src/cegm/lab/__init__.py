"""The tool around the optimizer: training, comparison, statistics, reports, the command line."""
