"""From a plan to the processes that serve it, and back: launch files per engine, checked against its options."""
