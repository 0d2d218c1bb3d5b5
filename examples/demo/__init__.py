"""The Tidewire demo: this machine's pulse, a simulated options chain and a chat line on one page."""
