package attack

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// asAttacker is the environment variable that makes the test binary be the attacker.
const asAttacker = "BERTH_TEST_AS_ATTACKER"

func TestMain(m *testing.M) {
	if os.Getenv(asAttacker) != "" {
		if err := obey(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		return
	}
	m.Run()
}

// orders are all that an attacker knows of the server and of what it is to do.
type orders struct {
	Group, Attack int // in groups
	URL           string
	CAFile        string // of the server's certificate
	Token         string
	Namespace     string // of the attacker's own
}

// newOrders returns the orders for an attack.
func (s *server) newOrders(group, number int) orders {
	return orders{
		Group: group, Attack: number, URL: s.URL, CAFile: filepath.Join(s.Dir, "berth.data", "pki", "ca.crt"),
		Token: attackerToken(number), Namespace: fmt.Sprintf("attack-%d", number),
	}
}

// attack is the attack that is ordered.
func (o orders) attack() *attack { return &groups[o.Group].attacks[o.Attack] }

// obey is the whole of the attacker's process. For each line of in, which is orders, it attacks
// until the next line, and writes what it was answered as a line.
func obey(in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var o orders
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			return err
		}
		a, err := newAttacker(o)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			defer cancel()
			lines.Scan()
		}()
		a.run(ctx, o.attack().run)
		<-ctx.Done()
		if _, err := fmt.Fprintln(out, a.answers.String()); err != nil {
			return err
		}
	}
	return lines.Err()
}

// process is the attacker's process.
type process struct {
	in  io.Writer
	out *bufio.Reader
}

// startAttacker starts the attacker's process, which lives as long as the test, at the lowest
// priority: the server and the victim have the cores before it, as they would if it had a
// machine of its own.
func startAttacker(t *testing.T) *process {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "nice", "-n", "19", binary)
	cmd.Env, cmd.Stderr = append(os.Environ(), asAttacker+"=1"), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() }) // the test's context has ended it
	return &process{in: in, out: bufio.NewReader(out)}
}

// attack lets the process attack until ctx is done, and returns what it was answered.
func (p *process) attack(ctx context.Context, t *testing.T, o orders) (answers string) {
	t.Helper()
	err := json.NewEncoder(p.in).Encode(o)
	<-ctx.Done()
	if err == nil {
		_, err = io.WriteString(p.in, "\n")
	}
	if err == nil {
		answers, err = p.out.ReadString('\n')
	}
	if err != nil {
		t.Errorf("the attacker's process: %v", err)
	}
	return strings.TrimSuffix(answers, "\n")
}
