"""Several processes, one device each, that compute as one."""
