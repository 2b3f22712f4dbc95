"""The service for people and programs: a web page, a REST API and annotation in one process."""
