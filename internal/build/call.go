package build

import (
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/frontend/subrequests"
	"github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/moby/buildkit/frontend/subrequests/outline"
	"github.com/moby/buildkit/frontend/subrequests/targets"
)

// What the front end can be asked instead of building.
const (
	CallLint     = lint.RequestLint                       // what is wrong with the Dockerfile
	CallOutline  = outline.RequestSubrequestsOutline      // which arguments, secrets and agents a target takes
	CallTargets  = targets.RequestTargets                 // which targets there are
	CallDescribe = subrequests.RequestSubrequestsDescribe // which of these it answers
)

// Answer is what the front end says to a call.
type Answer struct {
	JSON, Text []byte // the same twice
	Failed     bool   // of a lint: there are findings
}

func answer(res *client.Result) Result {
	if res == nil {
		return Result{Answer: &Answer{}}
	}
	status := string(res.Metadata["result.statuscode"])
	return Result{Answer: &Answer{
		JSON: res.Metadata["result.json"], Text: res.Metadata["result.txt"],
		Failed: status != "" && status != "0",
	}}
}
