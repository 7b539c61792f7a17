package server

import (
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"cuelabs.dev/go/oci/ociregistry"
)

// longestPage is how many names one answer holds at most (CVE-2023-2253). Who
// asks for more, or for all, gets a page and the address of the next.
const longestPage = 1000

// list answers with tags or repositories, in pages.
func (s *server) list(w http.ResponseWriter, req *http.Request, t target) error {
	q := req.URL.Query()
	n := longestPage
	if text := q.Get("n"); text != "" {
		asked, err := strconv.ParseInt(text, 10, 64)
		if err != nil && asked <= 0 || asked < 0 { // out of range is merely a lot
			return ociregistry.NewHTTPError(ociregistry.NewError("invalid number of results requested", "PAGINATION_NUMBER_INVALID", nil), http.StatusBadRequest, nil, nil)
		}
		n = int(min(asked, longestPage))
	}
	last := q.Get("last")
	names := s.registry.Repositories(req.Context(), last)
	if t.kind == tags {
		names = s.registry.Tags(req.Context(), t.repo, last)
	}
	page, more, err := take(names, n)
	if err != nil {
		return err
	}
	if more {
		next := url.URL{Path: req.URL.Path, RawQuery: url.Values{"n": {strconv.Itoa(n)}, "last": {page[n-1]}}.Encode()}
		w.Header().Set("Link", fmt.Sprintf(`<%s>; rel="next"`, next.String()))
	}
	var answer any = struct {
		Repositories []string `json:"repositories"`
	}{page}
	if t.kind == tags {
		answer = struct {
			Name string   `json:"name"`
			Tags []string `json:"tags"`
		}{t.repo, page}
	}
	data, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	_, _ = w.Write(data)
	return nil
}

// take returns the first n of names, and whether there are more. A page of
// none says nothing about more, but the first name still tells whether the
// repository exists.
func take(names iter.Seq2[string, error], n int) (page []string, more bool, err error) {
	page = []string{}
	for name, err := range names {
		if err != nil {
			return nil, false, err
		}
		if len(page) == n {
			return page, n > 0, nil
		}
		page = append(page, name)
	}
	return page, false, nil
}
