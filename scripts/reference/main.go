// Command estargz-reference converts the layers of an OCI layout with the reference library, as ctr-remote, nerdctl and
// BuildKit do it: estargz.Build for one layer after another, the output hashed and written. scripts/bench-convert measures us
// against it, and scripts/e2e lets us read what it wrote.
//
// usage: estargz-reference [-level 9] [-chunk-size 4194304] [-min-chunk-size 0] LAYOUT_DIR TAG OUT_DIR
// OUT_DIR becomes an OCI layout with the same tag. Prints one JSON object: layers, bytes in, bytes out.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/opencontainers/go-digest"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      digest.Digest     `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type document struct {
	Manifests []descriptor `json:"manifests"`
}

type result struct {
	Layers   int   `json:"layers"`
	BytesIn  int64 `json:"bytes_in"`
	BytesOut int64 `json:"bytes_out"`
}

func main() {
	level := flag.Int("level", 9, "gzip level (the library's default is 9)")
	chunk := flag.Int("chunk-size", 0, "bytes of a chunk (0: the library's default, 4 MiB)")
	min := flag.Int("min-chunk-size", 0, "smallest gzip member, bytes (0: one a file)")
	flag.Parse()
	if flag.NArg() != 3 {
		fmt.Fprintln(os.Stderr, "usage: estargz-reference [flags] LAYOUT_DIR TAG OUT_DIR")
		os.Exit(2)
	}
	options := []estargz.Option{estargz.WithCompressionLevel(*level), estargz.WithChunkSize(*chunk), estargz.WithMinChunkSize(*min)}
	if err := run(flag.Arg(0), flag.Arg(1), flag.Arg(2), options); err != nil {
		fmt.Fprintf(os.Stderr, "estargz-reference: %v\n", err)
		os.Exit(1)
	}
}

func blob(layout string, d digest.Digest) string {
	return filepath.Join(layout, "blobs", d.Algorithm().String(), d.Encoded())
}

func readJSON(path string, into any) error {
	bytes, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(bytes, into)
}

func run(layout, tag, out string, options []estargz.Option) error {
	var index document
	if err := readJSON(filepath.Join(layout, "index.json"), &index); err != nil {
		return err
	}
	// Fields that this program does not know stay.
	var manifest, config map[string]any
	for _, m := range index.Manifests {
		if m.Annotations["org.opencontainers.image.ref.name"] == tag {
			if err := readJSON(blob(layout, m.Digest), &manifest); err != nil {
				return err
			}
		}
	}
	if manifest == nil {
		return fmt.Errorf("no tag %q in %s", tag, layout)
	}
	if err := os.MkdirAll(filepath.Join(out, "blobs/sha256"), 0o755); err != nil {
		return err
	}
	var layers []descriptor
	if err := recode(manifest["layers"], &layers); err != nil {
		return err
	}
	r := result{Layers: len(layers)}
	var newLayers []descriptor
	var diffIDs []digest.Digest
	for i, l := range layers {
		d, diffID, err := convert(blob(layout, l.Digest), out, options)
		if err != nil {
			return fmt.Errorf("layer %d (%s): %w", i, l.Digest, err)
		}
		r.BytesIn += l.Size
		r.BytesOut += d.Size
		newLayers = append(newLayers, d)
		diffIDs = append(diffIDs, diffID)
	}
	var configDescriptor descriptor
	if err := recode(manifest["config"], &configDescriptor); err != nil {
		return err
	}
	if err := readJSON(blob(layout, configDescriptor.Digest), &config); err != nil {
		return err
	}
	config["rootfs"] = map[string]any{"type": "layers", "diff_ids": diffIDs}
	c, err := writeJSON(out, "application/vnd.oci.image.config.v1+json", config)
	if err != nil {
		return err
	}
	manifest["config"], manifest["layers"] = c, newLayers
	m, err := writeJSON(out, "application/vnd.oci.image.manifest.v1+json", manifest)
	if err != nil {
		return err
	}
	m.Annotations = map[string]string{"org.opencontainers.image.ref.name": tag}
	written, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []descriptor{m}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "index.json"), written, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

func recode(from, into any) error {
	bytes, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(bytes, into)
}

func writeJSON(out, mediaType string, value any) (descriptor, error) {
	bytes, err := json.Marshal(value)
	if err != nil {
		return descriptor{}, err
	}
	d := descriptor{MediaType: mediaType, Digest: digest.FromBytes(bytes), Size: int64(len(bytes))}
	return d, os.WriteFile(blob(out, d.Digest), bytes, 0o644)
}

func convert(in, out string, options []estargz.Option) (d descriptor, diffID digest.Digest, err error) {
	f, err := os.Open(in)
	if err != nil {
		return d, "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return d, "", err
	}
	b, err := estargz.Build(io.NewSectionReader(f, 0, info.Size()), options...)
	if err != nil {
		return d, "", err
	}
	defer b.Close()
	w, err := os.CreateTemp(out, "layer")
	if err != nil {
		return d, "", err
	}
	defer w.Close()
	digester := digest.Canonical.Digester()
	n, err := io.Copy(io.MultiWriter(w, digester.Hash()), b)
	if err != nil {
		return d, "", err
	}
	d = descriptor{
		MediaType:   "application/vnd.oci.image.layer.v1.tar+gzip",
		Digest:      digester.Digest(),
		Size:        n,
		Annotations: map[string]string{estargz.TOCJSONDigestAnnotation: b.TOCDigest().String()},
	}
	return d, b.DiffID(), os.Rename(w.Name(), blob(out, d.Digest))
}
