"""Every method, one file each, in a folder by what it works on."""
