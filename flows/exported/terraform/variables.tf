variable "region" {
  description = "The AWS region."
  type        = string
}

variable "vpc" {
  description = "The id of the VPC."
  type        = string
}

variable "public_subnets" {
  description = "The ids of at least two subnets, in different zones, for the load balancer."
  type        = list(string)
}

variable "private_subnets" {
  description = "The ids of at least two subnets, in different zones, with a way out (NAT), for everything else."
  type        = list(string)
}

variable "certificate" {
  description = "The ARN of the load balancer's certificate in ACM."
  type        = string
}

variable "clients" {
  description = "The address ranges that may ask the endpoint."
  type        = list(string)
  default     = ["0.0.0.0/0"]
}

# What is below is in release.auto.tfvars, which each export writes anew.

variable "name" {
  description = "What everything is named after."
  type        = string
}

variable "release" {
  description = "The tag of the image that is served."
  type        = string
}

variable "project" {
  description = "The tag of the image that retrains."
  type        = string
}

variable "port" {
  description = "The port of the service's container."
  type        = number
}

variable "cpu" {
  description = "CPU units of a container of the service; 1024 are one core."
  type        = number
}

variable "memory" {
  description = "MiB of a container of the service."
  type        = number
}

locals {
  # For names that must be short, and may not have two hyphens in a row.
  short = trimsuffix(substr(var.name, 0, 25), "-")
}
