package pgstore

// Statements returns the SQL statements by name.
func (s *Store) Statements() map[string]string {
	return map[string]string{
		"create": s.sql.create, "get": s.sql.get, "rotate": s.sql.rotate, "list": s.sql.list, "revoke": s.sql.revoke,
		"spend": s.sql.spend, "spentBy": s.sql.spentBy,
		"feedAll": s.sql.feedAll, "feedAfter": s.sql.feedAfter,
	}
}
