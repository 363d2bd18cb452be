// Serves the files below a directory as Wings does: each is copied to the client through a buffer of
// 32 KiB. usage: copy DIRECTORY ADDRESS [CERTIFICATE KEY]
package main

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"os"
	"path"
	"strconv"
)

func main() {
	directory, address := os.Args[1], os.Args[2]
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		file, err := os.Open(directory + path.Clean("/"+r.URL.Path))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Length", strconv.FormatInt(info.Size(), 10))
		w.Header().Set("Content-Type", "application/octet-stream")
		// Without the writer's shortcut to sendfile, which Wings' writer has not either.
		_, _ = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{file}, make([]byte, 32<<10))
	})
	server := &http.Server{
		Addr:    address,
		Handler: handler,
		// HTTP/1.1 over TLS, as all of them speak here.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	if len(os.Args) > 4 {
		log.Fatal(server.ListenAndServeTLS(os.Args[3], os.Args[4]))
	}
	log.Fatal(server.ListenAndServe())
}
