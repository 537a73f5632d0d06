name    = "<<name>>"
release = "<<tag>>"
project = "<<project>>"
port    = <<port>>
cpu     = <<cpu>>
memory  = <<memory>>
