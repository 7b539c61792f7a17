package timeline

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bkclient "github.com/moby/buildkit/client"

	"github.com/shaleproject/shale/internal/build/cache"
)

// attack is what a Dockerfile may call things in order to be run.
const attack = `</title></style></script><script>document.documentElement.id='owned'</script>"'><img src=x onerror="document.documentElement.id='owned'">` +
	`<svg onload="document.documentElement.id='owned'"><iframe src="javascript:parent.document.documentElement.id='owned'"></iframe>{{.Style}}]]>` + "\u202etxt.exe\x00\x1b[31m\xff"

// hostile is the page of a build in which everything is called attack.
func hostile(t *testing.T) string {
	t.Helper()
	r := NewRecorder(start)
	vertex(r, attack, 0, 1)
	failed := vertex(r, "RUN "+attack, 1, 2, attack)
	failed.Error = attack
	r.Observe(&bkclient.SolveStatus{
		Vertexes: []*bkclient.Vertex{failed},
		Logs:     []*bkclient.VertexLog{{Vertex: failed.Digest, Data: []byte(attack + "\n")}},
	})
	line := r.Timeline(start.Add(2*time.Second), []cache.Verdict{
		{Digest: attack, Hit: true, From: attack},
		{Digest: failed.Digest, Reasons: []cache.Reason{{Kind: cache.KindArg, Name: attack, Change: "changed"}, {Kind: cache.KindInstruction, Was: attack}}},
	})
	line.Title, line.Failed = attack, attack
	line.Scrub = func(text string) string { return strings.ReplaceAll(text, "exe", "xxx") }
	return html(t, line)
}

func TestNothingInAPageIsRun(t *testing.T) {
	page := hostile(t)
	for _, markup := range []string{"<script", "<img", "<iframe", "onload=\"", "\x00", "\x1b", "\u202e", "\xff", "exe"} {
		if strings.Contains(page, markup) {
			t.Errorf("the page has %q", markup)
		}
	}
	if !strings.Contains(page, "default-src &#39;none&#39;") {
		t.Error("the page has no policy")
	}
}

// A browser sees text where the names are, and would not run a script if
// there were one.
func TestABrowserRunsNothing(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no browser (Debian: chromium)")
	}
	page := hostile(t)
	dom, said := open(t, browser, page)
	if strings.Contains(dom, `id="owned"`) {
		t.Error("a name was run")
	}
	for _, element := range []string{"<script", "<img", "<iframe"} {
		if strings.Contains(dom, element) {
			t.Errorf("the browser has made an element %q of a name", element)
		}
	}
	if !strings.Contains(dom, `id="step-2"`) || !strings.Contains(dom, "&lt;script&gt;") {
		t.Errorf("the browser shows\n%s", dom)
	}
	if strings.Contains(said, "Content Security Policy") {
		t.Errorf("the policy forbids the page's own style: %s", said)
	}
	dom, said = open(t, browser, strings.Replace(page, "<main>", "<main><script>document.documentElement.id='owned'</script>", 1))
	if strings.Contains(dom, `id="owned"`) || !strings.Contains(said, "Content Security Policy") {
		t.Errorf("the policy lets scripts run; the browser said: %s", said)
	}
}

// open returns what a browser makes of a page, and what it says about it.
func open(t *testing.T, browser, page string) (dom, said string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "page.html")
	if err := os.WriteFile(file, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr",
		"--user-data-dir="+filepath.Join(dir, "profile"), "--dump-dom", "file://"+file)
	cmd.Env = append(os.Environ(), "HOME="+dir)
	var out, errout bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errout
	if err := cmd.Run(); err != nil {
		t.Skipf("the browser does not start here: %v\n%s", err, errout.String())
	}
	return out.String(), errout.String()
}
