"""Jobs: renders that are asked for now and made later, one or a million of them."""
