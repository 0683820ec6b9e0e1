"""Every part of TTFT and TPOT of fixed plans under fixed loads, recorded: `python -m tests.golden` writes them anew."""
