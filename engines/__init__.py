"""Processes that honour the container's HTTP contract: the CPU voice and the simulated one."""
