package main

import (
	"context"
	"sync"
)

// tasks owns the goroutines that work in the background.
type tasks struct {
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// newTasks returns an owner of no goroutine yet. stop must be called.
func newTasks() *tasks {
	t := &tasks{}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// run starts a task, which must return when its context ends.
func (t *tasks) run(task func(context.Context)) {
	t.running.Go(func() { task(t.ctx) })
}

// stop ends the tasks and waits for them.
func (t *tasks) stop() {
	t.cancel()
	t.running.Wait()
}
