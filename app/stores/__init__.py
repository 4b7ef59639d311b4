"""Object stores: where bytes are kept under keys."""
