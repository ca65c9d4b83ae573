"""The status page: what stands in the receipts and the run database, read only, for a browser."""
