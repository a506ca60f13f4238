"""`asr batch`: manifests of very many recordings to records, on one machine or on a Ray cluster."""
