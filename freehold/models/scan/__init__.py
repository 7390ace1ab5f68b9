"""The scan: is there anything in these files that is not a model? Decided before it is one."""
