-- For SQLite and PostgreSQL.
CREATE TABLE IF NOT EXISTS users (
	id            TEXT PRIMARY KEY,     -- in every token, and never used again
	login         TEXT NOT NULL UNIQUE, -- in lower case
	password_hash TEXT NOT NULL,
	role          TEXT NOT NULL DEFAULT 'member' CHECK (role IN ('member', 'admin')),
	disabled      BOOLEAN NOT NULL DEFAULT FALSE,
	-- TRUE for the first user, and NULL for all others. The owner is an administrator
	-- whose role nobody can change, so there always is one.
	owner         BOOLEAN UNIQUE CHECK (owner)
);
