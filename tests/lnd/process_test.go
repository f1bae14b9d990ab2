package lnd

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// stage is a test that fails in another's place.
type stage struct {
	testing.TB
	said string
}

func (s *stage) Fatalf(format string, args ...any) {
	s.said = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// gaveUp has a world wait for what holds after some looks, and returns why it gave up; nothing if it did not.
func (w *World) gaveUp(looks int) string {
	stage, done := &stage{TB: w.t}, make(chan struct{})
	staged := *w
	staged.t = stage
	go func() {
		defer close(done)
		staged.eventually("there were looks", func() error {
			if looks--; looks > 0 {
				return errNotYet
			}
			return nil
		})
	}()
	<-done
	return stage.said
}

// Whoever waits is told at once when a process ended by itself, and what it last wrote; what the test ended is no reason.
func TestAWaitEndsWithAProcessThatEndsByItself(t *testing.T) {
	w := newWorld(t)
	stopped := w.start("stopped", "/bin/sh", "", "-c", "exec sleep 100")
	killed := w.start("killed", "/bin/sh", "", "-c", "exec sleep 100")
	stopped.stop()
	killed.kill()
	if said := w.gaveUp(3); said != "" {
		t.Fatalf("a process that the test ended came to: %s", said)
	}
	w.start("signer", "/bin/sh", "", "-c", "echo the port is taken; exit 3")
	said := w.gaveUp(1_000)
	for _, part := range []string{"signer ended by itself", "exit status 3", "the port is taken"} {
		if !strings.Contains(said, part) {
			t.Errorf("the wait came to %q, without %q", said, part)
		}
	}
}
