package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/estargz/zstdchunked"
	"github.com/containerd/stargz-snapshotter/metadata"
	"github.com/containerd/stargz-snapshotter/metadata/memory"
	"github.com/opencontainers/go-digest"
)

// snapshotterView reads the blob as the snapshotter's own metadata reader shows it to its file system: every node with its
// attributes against the TOC's entry, every file by the chunks that this reader names. It gives the nodes and the bytes.
func snapshotterView(blob *io.SectionReader, toc *estargz.Reader) (nodes int, total int64, err error) {
	r, err := memory.NewReader(blob, metadata.WithDecompressors(&zstdchunked.Decompressor{}))
	if err != nil {
		return 0, 0, fmt.Errorf("the snapshotter's reader: %w", err)
	}
	defer r.Close()
	if r.TOCDigest() != toc.TOCDigest() {
		return 0, 0, fmt.Errorf("the snapshotter's reader has TOC %s, the library %s", r.TOCDigest(), toc.TOCDigest())
	}
	read := map[uint32]bool{} // hard links are one node
	var walk func(id uint32, name string) error
	walk = func(id uint32, name string) error {
		nodes++
		attr, err := r.GetAttr(id)
		if err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		want, ok := toc.Lookup(name)
		if !ok {
			return fmt.Errorf("%q: the TOC has no such entry", name)
		}
		if err := sameAttributes(attr, want); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		if attr.Mode.IsRegular() && !read[id] {
			read[id] = true
			n, err := readNode(r, id, attr.Size, want)
			if err != nil {
				return fmt.Errorf("%q: %w", name, err)
			}
			total += n
		}
		type child struct {
			name string
			id   uint32
		}
		var children []child
		if err := r.ForeachChild(id, func(name string, id uint32, _ os.FileMode) bool {
			children = append(children, child{name, id})
			return true
		}); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		for _, c := range children {
			if got, _, err := r.GetChild(id, c.name); err != nil || got != c.id {
				return fmt.Errorf("%q: child %q is node %d, looked up %d: %w", name, c.name, c.id, got, err)
			}
			if err := walk(c.id, path.Join(name, c.name)); err != nil {
				return err
			}
		}
		return nil
	}
	err = walk(r.RootID(), "")
	return nodes, total, err
}

func sameAttributes(got metadata.Attr, want *estargz.TOCEntry) error {
	stat := want.Stat()
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"size", got.Size, want.Size},
		{"mtime", got.ModTime.UnixNano(), want.ModTime().UnixNano()},
		{"mode", got.Mode, stat.Mode()},
		{"link", got.LinkName, want.LinkName},
		{"uid", got.UID, want.UID},
		{"gid", got.GID, want.GID},
		{"device", [2]int{got.DevMajor, got.DevMinor}, [2]int{want.DevMajor, want.DevMinor}},
		{"links", got.NumLink, want.NumLink},
	} {
		if c.got != c.want {
			return fmt.Errorf("%s %v, the TOC says %v", c.what, c.got, c.want)
		}
	}
	if !maps.EqualFunc(got.Xattrs, want.Xattrs, func(a, b []byte) bool { return string(a) == string(b) }) {
		return fmt.Errorf("extended attributes %q, the TOC says %q", got.Xattrs, want.Xattrs)
	}
	return nil
}

// readNode reads a file by its chunks and checks each digest, and the whole file's.
func readNode(r metadata.Reader, id uint32, size int64, want *estargz.TOCEntry) (int64, error) {
	f, err := r.OpenFile(id)
	if err != nil {
		return 0, err
	}
	whole := digest.SHA256.Digester()
	for at := int64(0); at < size; {
		off, length, dgst, ok := f.ChunkEntryForOffset(at)
		if !ok || off != at || length <= 0 {
			return at, fmt.Errorf("no chunk at %d (found one at %d of %d bytes)", at, off, length)
		}
		p := make([]byte, length)
		if n, err := f.ReadAt(p, at); int64(n) != length {
			return at, fmt.Errorf("chunk at %d: %d of %d bytes: %w", at, n, length, err)
		}
		if found := digest.FromBytes(p); found.String() != dgst {
			return at, fmt.Errorf("chunk at %d: digest %s, expected %s", at, found, dgst)
		}
		if _, err := whole.Hash().Write(p); err != nil {
			return at, err
		}
		at += length
	}
	if want.Digest != "" && whole.Digest().String() != want.Digest {
		return size, fmt.Errorf("file digest is %s, the TOC says %s", whole.Digest(), want.Digest)
	}
	return size, nil
}
