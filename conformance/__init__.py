"""The Autobahn Testsuite against both sides of Tidewire, and a judge of what it found (``make conformance``)."""
