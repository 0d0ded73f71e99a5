"""A source tree to a manifest and packed bytes.

    source.open_source -> walk.walk -> pack.pack -> transcode.transcode

SOURCE becomes a directory or file, then a list of entries, then one archive with its manifest, then the same in
another codec. Everything here that fails because of SOURCE or of the local disk raises `SourceError`.
"""
