//go:build !unix

package sqlitestore

// guardDir does nothing on this system, where the mode of a file does not say
// who may write to it.
func guardDir(string) error { return nil }

// guardFile does nothing, for the same reason.
func guardFile(string) error { return nil }
