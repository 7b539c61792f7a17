package ops

import (
	"io"
	"net"
)

// forward joins every connection to l with one to the unix socket at path,
// until l is closed.
func forward(l net.Listener, path string) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			agent, err := net.Dial("unix", path)
			if err != nil {
				return // the program sees the end of the connection
			}
			defer agent.Close()
			done := make(chan struct{}, 2)
			relay := func(to, from net.Conn) {
				_, _ = io.Copy(to, from)
				// Who has asked all that he wants may still hear the answer.
				if half, ok := to.(*net.UnixConn); ok {
					_ = half.CloseWrite()
				}
				done <- struct{}{}
			}
			go relay(conn, agent)
			go relay(agent, conn)
			<-done
			<-done
		}()
	}
}
