-- For SQLite and PostgreSQL.
CREATE TABLE IF NOT EXISTS users (
	id            TEXT PRIMARY KEY,     -- in every token, and never used again
	login         TEXT NOT NULL UNIQUE, -- in lower case
	password_hash TEXT NOT NULL,
	role          TEXT NOT NULL DEFAULT 'member' CHECK (role IN ('member', 'admin')),
	disabled      BOOLEAN NOT NULL DEFAULT FALSE
);

-- The first user. The table has at most one row, so if two first users sign up at
-- the same time, only one of them becomes the owner. The owner is an administrator
-- whose role nobody can change, so there always is one.
CREATE TABLE IF NOT EXISTS owner (
	only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
	user_id  TEXT NOT NULL REFERENCES users (id)
);
