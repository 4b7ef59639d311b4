"""Tests of the object stores, and of the service on top of them."""
