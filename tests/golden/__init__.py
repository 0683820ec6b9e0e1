"""Every part of TTFT and TPOT of fixed plans, and some answers, recorded: `python -m tests.golden` does it anew."""
