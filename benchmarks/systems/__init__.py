"""The systems that are measured. A module here is imported only where its system is driven: it may need libraries
that are nowhere else. What has to be known before that is in `catalogue.py`."""
