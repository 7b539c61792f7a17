package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/build"
	"github.com/shaleproject/shale/internal/registry/s3"
)

// s3Place reads what --cache-from and --cache-to have of a bucket out of fields,
// and takes it from them: BuildKit's names and defaults, and AWS's variables.
func s3Place(p *build.CachePlace, fields map[string]string, env lookup) error {
	get := func(key, variable string) string {
		v, ok := fields[key]
		if delete(fields, key); !ok && variable != "" {
			v, _ = env(variable)
		}
		return v
	}
	b := s3.Defaults()
	b.Name, b.Region, b.Prefix = get("bucket", "AWS_BUCKET"), get("region", "AWS_REGION"), get("prefix", "")
	if b.Endpoint = get("endpoint_url", "AWS_ENDPOINT_URL_S3"); b.Endpoint == "" {
		b.Endpoint, _ = env("AWS_ENDPOINT_URL")
	}
	for key, to := range map[string]*string{"blobs_prefix": &b.BlobsPrefix, "manifests_prefix": &b.ManifestsPrefix} {
		if v, ok := fields[key]; ok {
			*to = v
		}
		delete(fields, key)
	}
	if names := get("name", ""); names != "" {
		b.Names = strings.Split(names, ";")
	}
	switch {
	case b.Name == "":
		return fmt.Errorf("bucket ($AWS_BUCKET) is required for s3")
	case b.Region == "":
		return fmt.Errorf("region ($AWS_REGION) is required for s3")
	}
	var err error
	if v := get("use_path_style", ""); v != "" {
		if b.PathStyle, err = strconv.ParseBool(v); err != nil {
			return fmt.Errorf("use_path_style is true or false")
		}
	}
	if v := get("touch_refresh", ""); v != "" {
		if b.Touch, err = time.ParseDuration(v); err != nil {
			return fmt.Errorf("touch_refresh is a duration, like 24h")
		}
	}
	p.Parallel = 4
	if v := get("upload_parallelism", ""); v != "" {
		if p.Parallel, err = strconv.Atoi(v); err != nil || p.Parallel <= 0 {
			return fmt.Errorf("upload_parallelism is a number above 0")
		}
	}
	b.Credentials = s3.Credentials{KeyID: get("access_key_id", ""), Secret: get("secret_access_key", ""), Token: get("session_token", "")}
	if b.Credentials == (s3.Credentials{}) {
		// Without any, the build says so where it misses them.
		if b.Credentials, err = s3.Find(env); err != nil && !errdefs.IsUnauthorized(err) {
			return err
		}
	}
	p.S3 = b
	return nil
}

// withoutSecrets is a value of a flag as it may be shown.
func withoutSecrets(value string) string {
	lower := strings.ToLower(value)
	for _, key := range []string{"access_key", "session_token"} {
		if strings.Contains(lower, key) {
			return "type=s3,…"
		}
	}
	return value
}
