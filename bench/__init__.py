"""Measurements of a running service, each beside a floor that is measured in the same minute."""
