//go:build !unix

package main

import "os/exec"

func contain(*exec.Cmd) {}
