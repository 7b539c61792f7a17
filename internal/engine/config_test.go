package engine

import "testing"

func TestTheStoreLiesWhereTheUserMayWrite(t *testing.T) {
	root, ordinary := User{}, User{UID: 1000}
	namespaced := User{UID: 0, Namespaced: true}
	for _, test := range []struct {
		name string
		env  map[string]string
		user User
		want string
	}{
		{"root", map[string]string{"HOME": "/root"}, root, "/var/lib/shale"},
		{"ordinary user", map[string]string{"HOME": "/home/u"}, ordinary, "/home/u/.local/share/shale"},
		{"root of a user namespace", map[string]string{"HOME": "/home/u"}, namespaced, "/home/u/.local/share/shale"},
		{"data home", map[string]string{"HOME": "/home/u", "XDG_DATA_HOME": "/data"}, ordinary, "/data/shale"},
		{"said", map[string]string{"HOME": "/root", "SHALE_ROOT": "/s"}, root, "/s"},
		{"no home", nil, ordinary, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := FromEnvironment(func(name string) string { return test.env[name] }, test.user)
			if c.Root != test.want {
				t.Errorf("root is %q, want %q", c.Root, test.want)
			}
		})
	}
}
