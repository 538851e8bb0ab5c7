package rbac

// Len returns how many entries the authorizer keeps.
func (a *Authorizer) Len() int { return len(a.roles) + len(a.bindings) + len(a.scopes) }
