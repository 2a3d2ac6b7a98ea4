"""The store on PostgreSQL, for those who have one: several daemons may share it."""
