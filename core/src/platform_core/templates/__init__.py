"""Templates of `platform new-plugin`: for each role or kind of service, a package with one part.

    platform -p platform_core.templates.schedule.plugin run --schedule new-part

A folder named after a role or kind has the modules of the package, which work as they are;
`package` has the files around them.
"""
