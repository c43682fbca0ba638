"""The gateway beside other proxies, in one run on one engine stub and one load generator."""
