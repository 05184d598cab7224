"""What stands between the parts of a run that go at their own pace."""
