module esgz.invalid/scripts/oracle-db

go 1.26.6

require (
	github.com/containerd/stargz-snapshotter v0.10.1
	github.com/opencontainers/go-digest v1.0.0
	go.etcd.io/bbolt v1.4.3
)

require (
	github.com/containerd/containerd v1.6.0-beta.2.0.20211117185425-a776a27af54a // indirect
	github.com/containerd/stargz-snapshotter/estargz v0.10.1 // indirect
	github.com/golang/protobuf v1.5.2 // indirect
	github.com/hashicorp/errwrap v1.0.0 // indirect
	github.com/hashicorp/go-multierror v1.1.1 // indirect
	github.com/klauspost/compress v1.13.6 // indirect
	github.com/opencontainers/image-spec v1.0.2-0.20210819154149-5ad6f50d6283 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	github.com/rs/xid v1.3.0 // indirect
	github.com/sirupsen/logrus v1.8.1 // indirect
	github.com/vbatts/tar-split v0.11.2 // indirect
	golang.org/x/sync v0.10.0 // indirect
	golang.org/x/sys v0.29.0 // indirect
	google.golang.org/genproto v0.0.0-20210602131652-f16073e35f0c // indirect
	google.golang.org/grpc v1.42.0 // indirect
	google.golang.org/protobuf v1.27.1 // indirect
)

// Its older versions reach into the Go runtime, which later compilers refuse.
require github.com/goccy/go-json v0.10.5 // indirect
