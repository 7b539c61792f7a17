package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cuelabs.dev/go/oci/ociregistry"

	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/registry/client"
)

// Tools of others read what we write, and we read what they write.

func needs(t *testing.T, tool string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		t.Skipf("%s is not installed", tool)
	}
}

func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, errs.String())
	}
	return out.String()
}

// distribution starts Debian's docker-registry and returns its address.
func distribution(t *testing.T) string {
	t.Helper()
	needs(t, "docker-registry")
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	addr := l.Addr().String()
	l.Close()
	config := filepath.Join(t.TempDir(), "config.yml")
	fine(t, os.WriteFile(config, fmt.Appendf(nil, "version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %s}\n", t.TempDir(), addr), 0o600))
	cmd := exec.Command("docker-registry", "serve", config)
	fine(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for range 1000 {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			return addr
		}
		time.Sleep(5 * time.Millisecond) // until it listens; it can't tell us
	}
	t.Fatal("docker-registry does not listen")
	return ""
}

// online gives w the registries of the network beside those in memory.
func (w *world) online() {
	c := client.New(client.Config{})
	inMemory := w.Registries
	w.Registries = func(host string) (ociregistry.Interface, error) {
		if w.registries[host] != nil {
			return inMemory(host)
		}
		return c.Registry(host)
	}
}

func TestDistributionKeepsWhatWePush(t *testing.T) {
	addr := distribution(t)
	here, there := newWorld(t), newWorld(t)
	here.online()
	there.online()
	name := addr + "/team/app:v1"
	img := here.local(epoch, [][]byte{base, top}, name, addr+"/team/other:v1")
	desc := must(here.Push(t.Context(), name, PushOptions{}))(t)
	var said events
	must(here.Push(t.Context(), addr+"/team/other:v1", PushOptions{Progress: said.sink()}))(t)
	said.has(t, "Mounted from team/app")
	got := must(there.Pull(t.Context(), name, PullOptions{}))(t)
	if got.Digest != desc.Digest {
		t.Errorf("pulled %s, pushed %s", got.Digest, desc.Digest)
	}
	if id := must(there.Get(t.Context(), name, nil))(t).ConfigDigest; id != img.ConfigDigest {
		t.Error("another image came back")
	}
	if all := must(there.PullAll(t.Context(), addr+"/team/app", PullOptions{}))(t); len(all) != 1 {
		t.Errorf("the repository has %d tags", len(all))
	}
	if _, err := there.Pull(t.Context(), addr+"/team/none:v1", PullOptions{}); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("an unknown image: %v", err)
	}
}

func TestSkopeoAndWeAgree(t *testing.T) {
	needs(t, "skopeo")
	addr := distribution(t)
	w := newWorld(t)
	w.online()
	name := addr + "/app:v1"
	img := w.local(epoch, [][]byte{base, top}, name)
	desc := must(w.Push(t.Context(), name, PushOptions{}))(t)

	var info struct {
		Digest string
		Layers []string
	}
	fine(t, json.Unmarshal([]byte(tool(t, "skopeo", "inspect", "--tls-verify=false", "docker://"+name)), &info))
	if info.Digest != desc.Digest.String() || len(info.Layers) != 2 {
		t.Errorf("skopeo sees %+v, we pushed %s", info, desc.Digest)
	}
	dir := t.TempDir()
	copied := addr + "/copied:v1"
	for _, mediaType := range []string{"v2s2", "oci"} {
		tool(t, "skopeo", "copy", "--format", mediaType, "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+name, "docker://"+copied)
		var theirs struct{ Digest string }
		fine(t, json.Unmarshal([]byte(tool(t, "skopeo", "inspect", "--tls-verify=false", "docker://"+copied)), &theirs))
		other := newWorld(t)
		other.online()
		if got := must(other.Pull(t.Context(), copied, PullOptions{}))(t); got.Digest.String() != theirs.Digest {
			t.Errorf("%s: we pulled %s, skopeo says %s", mediaType, got.Digest, theirs.Digest)
		}
		// Back, byte for byte, as another name.
		fine(t, other.Tag(t.Context(), copied, addr+"/again:"+mediaType))
		if again := must(other.Push(t.Context(), addr+"/again:"+mediaType, PushOptions{}))(t); again.Digest.String() != theirs.Digest {
			t.Errorf("%s: we pushed %s, pulled %s", mediaType, again.Digest, theirs.Digest)
		}
	}
	for _, format := range []string{"docker-archive", "oci-archive"} {
		file := filepath.Join(dir, format+".tar")
		tool(t, "skopeo", "copy", "--src-tls-verify=false", "docker://"+name, format+":"+file+":app:"+format)
		loaded := w.loadFile(file)
		if want := []Loaded{{"app:" + format, img.ConfigDigest}}; !slices.Equal(loaded, want) {
			t.Errorf("%s of skopeo's: loaded %v, want %v", format, loaded, want)
		}
	}
	file := w.saveFile(name)
	for _, format := range []string{"docker-archive", "oci-archive"} {
		var theirs struct{ Layers []string }
		fine(t, json.Unmarshal([]byte(tool(t, "skopeo", "inspect", format+":"+file)), &theirs))
		if want := []string{img.DiffIDs[0].String(), img.DiffIDs[1].String()}; !slices.Equal(theirs.Layers, want) {
			t.Errorf("skopeo reads our archive as %s with layers %v, want %v", format, theirs.Layers, want)
		}
	}
}

func (w *world) saveFile(names ...string) string {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "saved.tar")
	file := must(os.Create(path))(w.t)
	defer file.Close()
	fine(w.t, w.Save(w.t.Context(), file, names, SaveOptions{}))
	return path
}

func (w *world) loadFile(path string) []Loaded {
	w.t.Helper()
	file := must(os.Open(path))(w.t)
	defer file.Close()
	return must(w.Load(w.t.Context(), file, LoadOptions{}))(w.t)
}

func TestPodmanAndWeReadEachOthersArchives(t *testing.T) {
	needs(t, "podman")
	dir := must(os.MkdirTemp("", "pod"))(t) // podman wants a short path
	t.Cleanup(func() { os.RemoveAll(dir) })
	podman := func(args ...string) string {
		t.Helper()
		return tool(t, "podman", append([]string{"--root", dir + "/root", "--runroot", dir + "/run", "--storage-driver", "vfs"}, args...)...)
	}
	w := newWorld(t)
	img := w.local(epoch, [][]byte{base, top}, "reg.test/app:v1", "reg.test/app:v2")
	podman("load", "-i", w.saveFile("reg.test/app"))
	if id := strings.TrimSpace(podman("image", "inspect", "--format", "{{.Id}}", "reg.test/app:v1")); id != img.ConfigDigest.Encoded() {
		t.Errorf("podman loaded %s, we saved %s", id, img.ConfigDigest)
	}
	for _, format := range []string{"docker-archive", "oci-archive"} {
		file := filepath.Join(dir, format+".tar")
		podman("save", "--format", format, "-o", file, "reg.test/app:v2")
		other := newWorld(t)
		loaded := other.loadFile(file)
		if len(loaded) != 1 || loaded[0].Name != "reg.test/app:v2" {
			t.Errorf("%s of podman's: loaded %v", format, loaded)
		}
		if got := must(other.Get(t.Context(), "reg.test/app:v2", nil))(t); !slices.Equal(got.DiffIDs, img.DiffIDs) {
			t.Errorf("%s: layers %v, want %v", format, got.DiffIDs, img.DiffIDs)
		}
	}
}

func TestUmociReadsOurLayout(t *testing.T) {
	needs(t, "umoci")
	w := newWorld(t)
	w.local(epoch, [][]byte{base, top}, "app:v1")
	dir := t.TempDir()
	tool(t, "tar", "-C", dir, "-xf", w.saveFile("app:v1"))
	if tags := tool(t, "umoci", "list", "--layout", dir); strings.TrimSpace(tags) != "v1" {
		t.Errorf("umoci lists %q", tags)
	}
	stat := tool(t, "umoci", "stat", "--image", dir+":v1", "--json")
	if !strings.Contains(stat, "COPY 0 /") {
		t.Errorf("umoci sees %s", stat)
	}
	tool(t, "umoci", "unpack", "--rootless", "--image", dir+":v1", dir+"/bundle")
	if got := string(must(os.ReadFile(dir + "/bundle/rootfs/etc/os-release"))(t)); got != "ID=test\n" {
		t.Errorf("umoci unpacked %q", got)
	}
}

func TestAnotherCompressionIsNoObstacle(t *testing.T) {
	addr := distribution(t)
	w := newWorld(t)
	w.online()
	w.local(epoch, [][]byte{base, top}, addr+"/app:zstd")
	must(w.Push(t.Context(), addr+"/app:zstd", PushOptions{Compression: layer.Zstd}))(t)
	needs(t, "skopeo")
	dir := t.TempDir()
	tool(t, "skopeo", "copy", "--src-tls-verify=false", "docker://"+addr+"/app:zstd", "dir:"+dir)
}
