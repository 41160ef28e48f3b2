"""What `platform new-plugin` copies: for each role a package with one part that works.

    platform -p platform_core.templates.schedule.plugin run --schedule new-part

Every folder named after a role is the package; `package` holds what stands around it.
"""
