# Thin: everything is in tools/ and in the tasks of deno.json.
PREFIX ?= /usr/local
UNITDIR ?= /etc/systemd/system
DESTDIR ?=

.PHONY: build demo demo-stop test bench ok install uninstall clean

build:
	@tools/setup.sh build && tools/build.sh

demo:
	@tools/demo.sh

demo-stop:
	@tools/demo.sh stop

test:
	@tools/test.sh

bench:
	@tools/bench.sh

ok:
	@tools/run.sh ok

install: build
	install -D -m 755 hypercore $(DESTDIR)$(PREFIX)/bin/hypercore
	install -d -m 755 $(DESTDIR)$(UNITDIR)
	sed 's|/usr/local/bin/hypercore|$(PREFIX)/bin/hypercore|' examples/hypercore.service > $(DESTDIR)$(UNITDIR)/hypercore.service
	@echo "installed; start it with: systemctl enable --now hypercore"

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/hypercore $(DESTDIR)$(UNITDIR)/hypercore.service

clean:
	rm -rf hypercore build
