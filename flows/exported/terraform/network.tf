# Who may talk to whom: clients to the load balancer, it to the service, the worker to Prefect, both to the database.

resource "aws_security_group" "balancer" {
  name_prefix = "${var.name}-balancer-"
  description = "The load balancer of ${var.name}"
  vpc_id      = var.vpc
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_security_group" "service" {
  name_prefix = "${var.name}-service-"
  description = "The containers that answer"
  vpc_id      = var.vpc
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_security_group" "flows" {
  name_prefix = "${var.name}-flows-"
  description = "The Prefect server and the worker"
  vpc_id      = var.vpc
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_security_group" "database" {
  name_prefix = "${var.name}-database-"
  description = "PostgreSQL"
  vpc_id      = var.vpc
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_security_group" "home" {
  name_prefix = "${var.name}-home-"
  description = "The worker's files"
  vpc_id      = var.vpc
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each          = { for pair in setproduct(var.clients, [80, 443]) : "${pair[0]}-${pair[1]}" => pair }
  security_group_id = aws_security_group.balancer.id
  cidr_ipv4         = each.value[0]
  from_port         = each.value[1]
  to_port           = each.value[1]
  ip_protocol       = "tcp"
}

resource "aws_vpc_security_group_egress_rule" "balancer_to_service" {
  security_group_id            = aws_security_group.balancer.id
  referenced_security_group_id = aws_security_group.service.id
  from_port                    = var.port
  to_port                      = var.port
  ip_protocol                  = "tcp"
}

resource "aws_vpc_security_group_ingress_rule" "service_from_balancer" {
  security_group_id            = aws_security_group.service.id
  referenced_security_group_id = aws_security_group.balancer.id
  from_port                    = var.port
  to_port                      = var.port
  ip_protocol                  = "tcp"
}

# The image, the log and the secrets are fetched over HTTPS.
resource "aws_vpc_security_group_egress_rule" "service_to_aws" {
  security_group_id = aws_security_group.service.id
  cidr_ipv4         = "0.0.0.0/0"
  from_port         = 443
  to_port           = 443
  ip_protocol       = "tcp"
}

# The worker reads sources wherever they are.
resource "aws_vpc_security_group_egress_rule" "flows" {
  security_group_id = aws_security_group.flows.id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}

resource "aws_vpc_security_group_ingress_rule" "prefect" {
  security_group_id            = aws_security_group.flows.id
  referenced_security_group_id = aws_security_group.flows.id
  from_port                    = 4200
  to_port                      = 4200
  ip_protocol                  = "tcp"
}

resource "aws_vpc_security_group_ingress_rule" "database" {
  security_group_id            = aws_security_group.database.id
  referenced_security_group_id = aws_security_group.flows.id
  from_port                    = 5432
  to_port                      = 5432
  ip_protocol                  = "tcp"
}

resource "aws_vpc_security_group_ingress_rule" "home" {
  security_group_id            = aws_security_group.home.id
  referenced_security_group_id = aws_security_group.flows.id
  from_port                    = 2049
  to_port                      = 2049
  ip_protocol                  = "tcp"
}
