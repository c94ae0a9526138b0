-- For SQLite and PostgreSQL.
CREATE TABLE IF NOT EXISTS users (
	id            TEXT PRIMARY KEY,     -- in every token, and never used again
	login         TEXT NOT NULL UNIQUE, -- in lower case
	password_hash TEXT NOT NULL,
	email         TEXT NOT NULL,
	verified      BOOLEAN NOT NULL DEFAULT FALSE, -- the user has confirmed a link that was sent to email
	role          TEXT NOT NULL DEFAULT 'member' CHECK (role IN ('member', 'admin')),
	disabled      BOOLEAN NOT NULL DEFAULT FALSE,
	-- The second factor. Encrypt totp if others can read the database or its backups.
	totp          TEXT NOT NULL DEFAULT '',       -- the otpauth URL of the authenticator app, with the secret
	totp_on       BOOLEAN NOT NULL DEFAULT FALSE, -- the user has confirmed totp with a first code
	totp_required BOOLEAN NOT NULL DEFAULT FALSE, -- the user must set it up to sign in
	recovery      TEXT NOT NULL DEFAULT '',       -- the SHA-256 of each recovery code that is left; the codes are random
	-- TRUE for the first user, and NULL for all others. The owner is an administrator
	-- whose role nobody can change, so there always is one.
	owner         BOOLEAN UNIQUE CHECK (owner)
);
