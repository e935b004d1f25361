// Command estargz-oracle-db reads eStargz layers with the snapshotter's metadata reader that keeps a TOC in a database (metadata/db,
// `metadata_store = "db"`), beside the one that keeps it in memory: every node with its attributes, every chunk of every file by its
// digest. It is the reader of v0.10.1, the last version that has it in a module which the Go proxy serves; it knows neither members
// that files share nor zstd:chunked.
//
// For each argument, an OCI layout directory: every gzip layer with a TOC digest annotation. One line a layer; exit status 1 at
// the first difference.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/containerd/stargz-snapshotter/metadata"
	"github.com/containerd/stargz-snapshotter/metadata/db"
	"github.com/containerd/stargz-snapshotter/metadata/memory"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

const (
	tocDigest = "containerd.io/snapshot/stargz/toc.digest"
	gzipLayer = "application/vnd.oci.image.layer.v1.tar+gzip"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      digest.Digest     `json:"digest"`
	Annotations map[string]string `json:"annotations"`
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: estargz-oracle-db LAYOUT_DIR...")
		os.Exit(2)
	}
	for _, dir := range os.Args[1:] {
		if err := layout(dir); err != nil {
			fmt.Fprintf(os.Stderr, "estargz-oracle-db: %s: %v\n", dir, err)
			os.Exit(1)
		}
	}
}

func layout(dir string) error {
	blob := func(d digest.Digest) string { return filepath.Join(dir, "blobs", d.Algorithm().String(), d.Encoded()) }
	layers := map[digest.Digest]digest.Digest{}
	var order []digest.Digest
	var documents func(path string) error
	documents = func(path string) error {
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var doc struct{ Manifests, Layers []descriptor }
		if err := json.Unmarshal(raw, &doc); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for _, m := range doc.Manifests {
			if err := documents(blob(m.Digest)); err != nil {
				return err
			}
		}
		for _, l := range doc.Layers {
			toc, ok := l.Annotations[tocDigest]
			if _, seen := layers[l.Digest]; ok && !seen && l.MediaType == gzipLayer {
				layers[l.Digest] = digest.Digest(toc)
				order = append(order, l.Digest)
			}
		}
		return nil
	}
	if err := documents(filepath.Join(dir, "index.json")); err != nil {
		return err
	}
	if len(order) == 0 {
		return fmt.Errorf("no gzip layer with a %s annotation", tocDigest)
	}
	for _, d := range order {
		if err := layer(blob(d), layers[d]); err != nil {
			return fmt.Errorf("layer %s: %w", d, err)
		}
	}
	return nil
}

func layer(file string, toc digest.Digest) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "estargz-oracle-db")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// As the snapshotter opens it: what is lost in a crash is made anew.
	store, err := bolt.Open(filepath.Join(dir, "metadata.db"), 0o600, &bolt.Options{NoFreelistSync: true, NoSync: true})
	if err != nil {
		return err
	}
	defer store.Close()
	section := func() *io.SectionReader { return io.NewSectionReader(f, 0, info.Size()) }
	kept, err := db.NewReader(store, section())
	if err != nil {
		return fmt.Errorf("db: %w", err)
	}
	defer kept.Close()
	held, err := memory.NewReader(section())
	if err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	defer held.Close()
	c := comparison{kept: kept, held: held, read: map[uint32]bool{}}
	// A database is filled in the background: its first answer waits for that.
	if err := c.node(kept.RootID(), held.RootID(), "/"); err != nil {
		return err
	}
	if got := kept.TOCDigest(); got != toc {
		return fmt.Errorf("db: TOC digest %s, the annotation says %s", got, toc)
	}
	fmt.Printf("ok   %s: %d nodes, %d chunks, %d bytes of files from the database as from memory\n", filepath.Base(file)[:12], c.nodes, c.chunks, c.bytes)
	return nil
}

type comparison struct {
	kept, held    metadata.Reader
	read          map[uint32]bool // hard links are one node
	nodes, chunks int
	bytes         int64
}

func (c *comparison) node(kept, held uint32, name string) error {
	c.nodes++
	got, err := c.kept.GetAttr(kept)
	if err != nil {
		return fmt.Errorf("db: %q: %w", name, err)
	}
	want, err := c.held.GetAttr(held)
	if err != nil {
		return fmt.Errorf("memory: %q: %w", name, err)
	}
	if name == "/" {
		got = want // this version takes the root's own entry for a child of it
	}
	if !got.ModTime.Equal(want.ModTime) {
		return fmt.Errorf("%q: modified %v, in memory %v", name, got.ModTime, want.ModTime)
	}
	got.ModTime = want.ModTime
	if got.NumLink == 0 {
		got.NumLink = 1 // this version stores only the links beyond the first
	}
	if len(got.Xattrs) == 0 && len(want.Xattrs) == 0 {
		got.Xattrs, want.Xattrs = nil, nil
	}
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("%q: attributes %+v, in memory %+v", name, got, want)
	}
	if got.Mode.IsRegular() && !c.read[kept] {
		c.read[kept] = true
		if err := c.file(kept, got.Size); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	names, err := children(c.kept, kept)
	if err != nil {
		return fmt.Errorf("db: %q: %w", name, err)
	}
	if name == "/" {
		names = slices.DeleteFunc(names, func(child string) bool { return child == "." })
	}
	others, err := children(c.held, held)
	if err != nil {
		return fmt.Errorf("memory: %q: %w", name, err)
	}
	if !slices.Equal(names, others) {
		return fmt.Errorf("%q: children %q, in memory %q", name, names, others)
	}
	for _, child := range names {
		kept, _, err := c.kept.GetChild(kept, child)
		if err != nil {
			return fmt.Errorf("db: %q of %q: %w", child, name, err)
		}
		held, _, err := c.held.GetChild(held, child)
		if err != nil {
			return fmt.Errorf("memory: %q of %q: %w", child, name, err)
		}
		if err := c.node(kept, held, path.Join(name, child)); err != nil {
			return err
		}
	}
	return nil
}

func children(r metadata.Reader, id uint32) (names []string, err error) {
	err = r.ForeachChild(id, func(name string, _ uint32, _ os.FileMode) bool {
		names = append(names, name)
		return true
	})
	slices.Sort(names)
	return names, err
}

// file reads a file from the database by its chunks and checks each digest.
func (c *comparison) file(id uint32, size int64) error {
	f, err := c.kept.OpenFile(id)
	if err != nil {
		return fmt.Errorf("db: %w", err)
	}
	for at := int64(0); at < size; {
		off, length, dgst, ok := f.ChunkEntryForOffset(at)
		if !ok || off != at || length <= 0 || at+length > size {
			return fmt.Errorf("db: no chunk at %d (found one at %d of %d bytes)", at, off, length)
		}
		p := make([]byte, length)
		if n, err := f.ReadAt(p, at); int64(n) != length {
			return fmt.Errorf("db: chunk at %d: %d of %d bytes: %w", at, n, length, err)
		}
		if found := digest.FromBytes(p); found.String() != dgst {
			return fmt.Errorf("db: chunk at %d: digest %s, expected %s", at, found, dgst)
		}
		at += length
		c.chunks++
		c.bytes += length
	}
	return nil
}
