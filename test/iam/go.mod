module github.com/berth-project/berth/test/iam

go 1.26.8

require github.com/gophercloud/gophercloud/v2 v2.15.0
