"""Other servers' Python packages, as far as users' archives import them.

Workers put this folder on sys.path, so an archive says `import ts` and gets
the package beside this file.  Nothing of stoker imports them as
`stoker.compat.ts`.
"""
